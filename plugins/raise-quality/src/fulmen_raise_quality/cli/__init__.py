"""`fulmen raise quality`: train, report. In: arguments. Out: a table or JSON. May import: everything beside it."""
