"""`fulmen raise probe`: train. In: arguments. Out: a table or JSON. May import: everything beside it."""
