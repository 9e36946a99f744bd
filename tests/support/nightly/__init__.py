"""The numeric tests on other processors, versions and Pythons; `__main__` says how it is run."""
