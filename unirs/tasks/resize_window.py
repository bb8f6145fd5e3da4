"""Which part of an image a resized frame shows."""

from unirs.metrics.box_frame import Window


def resize_window(image: tuple[int, int], target: tuple[int, int], mode: str) -> Window:
    """The window of an image that a frame shows, in pixels of the image.

    Args:
        image: Width and height of the image.
        target: Width and height of the frame.
        mode: `stretch`: the whole image. `pad`: more, to the frame's aspect ratio, whole pixels. `center_crop`: less.
    """
    if mode == "stretch":
        return Window(0, 0, *image)
    scales = [length / wanted for length, wanted in zip(image, target, strict=True)]
    if mode == "pad":
        # At least the image, which rounding may not cut.
        wide, high = (max(length, round(wanted * max(scales))) for length, wanted in zip(image, target, strict=True))
        return Window(-((wide - image[0]) // 2), -((high - image[1]) // 2), wide, high)
    width, height = (wanted * min(scales) for wanted in target)
    return Window((image[0] - width) / 2, (image[1] - height) / 2, width, height)
