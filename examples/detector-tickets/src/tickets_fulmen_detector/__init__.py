"""The RAISE detector `tickets`: ticket numbers, as an example of what a company does not want to leave."""
