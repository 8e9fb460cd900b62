"""accelerate launch train.py FLAG ...: the same as accelerate launch -m gazepose.train FLAG ... (gazepose/train.py)."""
# ruff: noqa: E402

from gazepose.startup import end_at_interrupt

end_at_interrupt("train")                                # before the slow imports

from gazepose.train import main

if __name__ == "__main__":
    main()
