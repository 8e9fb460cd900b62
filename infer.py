"""python infer.py FLAG ...: the same as python -m gazepose.infer FLAG ... (gazepose/infer.py)."""

from gazepose.infer import main

if __name__ == "__main__":
    main()
