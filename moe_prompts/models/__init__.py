"""1 MODEL: what generates data. Parameters are frozen dataclasses that check themselves."""
