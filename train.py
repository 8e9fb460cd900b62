"""accelerate launch train.py FLAG ...: the same as accelerate launch -m gazepose.train FLAG ... (gazepose/train.py)."""

from gazepose.train import main

if __name__ == "__main__":
    main()
