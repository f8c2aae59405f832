"""Stages of another distribution, for tests: they fail, hang, die or tell, as their options say."""
