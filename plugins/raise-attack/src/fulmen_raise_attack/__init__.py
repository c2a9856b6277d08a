"""RAISE detector of prompt attacks: jailbreaks and injections."""
