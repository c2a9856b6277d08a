"""`fulmen retrieval`: index, search, show. In: arguments. Out: a table or JSON. May import: everything beside it."""
