"""python infer.py FLAG ...: the same as python -m gazepose.infer FLAG ... (gazepose/infer.py)."""
# ruff: noqa: E402

from gazepose.startup import end_at_interrupt

end_at_interrupt("infer")                                # before the slow imports

from gazepose.infer import main

if __name__ == "__main__":
    main()
