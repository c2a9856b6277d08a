"""Makes the tagger's weights: sentences from labelled data and templates, name lists, an averaged perceptron.

In: JSONL files. Out: a safetensors file, a data card. Needs the extra ``train`` (Faker); nothing of
the product imports it.
"""
