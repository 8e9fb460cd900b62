"""accelerate launch train.py FLAG ...: the same as accelerate launch -m gazepose.train FLAG ... (gazepose/train.py)."""

from gazepose.programs import program

if __name__ == "__main__":
    program("train")
