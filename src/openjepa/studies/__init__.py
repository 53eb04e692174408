"""Studies: many runs that answer one question. `ablate` varies one recipe, `compare` sets recipes side by side.

Both make arms (`cells`), train and score each arm with every seed (`running`, `scoring`), pair the results (`results`)
and show them (`table`, `plot`). A study is a folder; each of its cells is a run folder like any other:

    cells/<arm>/seed-<s>/   a run, with evals/study.{json,npz} and, if it had to stop, stopped.json
    results.json  results.csv  results.png        references.{json,npz}: baselines without learning

Scores on a suite are kept beside those on the recipes' own tasks, in study-<suite>-<key>.* and
references-<suite>-<key>.*; the results are those of the last call.
"""
