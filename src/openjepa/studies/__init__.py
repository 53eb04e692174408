"""Studies of many runs: `ablate` varies the settings of one recipe, `compare` compares recipes.

Both make arms (`cells`), train and score each arm with every seed (`running`, `scoring`), pair the results (`results`)
and present them (`table`, `plot`). A study is a folder; each of its cells is an ordinary run folder:

    cells/<arm>/seed-<s>/   a run, with evals/study.{json,npz} and, if it had to stop, stopped.json
    results.json  results.csv  results.png        references.{json,npz}: baselines without learning

Scores on a suite are in separate files, study-<suite>-<key>.* and references-<suite>-<key>.*; the results are those of
the last call.
"""
