"""python infer.py FLAG ...: the same as python -m gazepose.infer FLAG ... (gazepose/infer.py)."""

from gazepose.programs import program

if __name__ == "__main__":
    program("infer")
