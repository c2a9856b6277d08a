"""RAISE: one policy, one taxonomy and four components, from the corpus to the stream."""
