"""`python -m mixerkit` is the `mixer` command."""

from mixerkit.cli.main import run_program

if __name__ == "__main__":
    run_program()
