"""Search over documents by a run's vectors: an index on disk that grows, and exact search with reasons.

words     TF-IDF over documents that come in one after another
index     documents, sentences and words in a folder
search    scores of a query, each part with its share
weights   the weights of these parts, chosen by judged queries
"""
