document.addEventListener("input", ({ target }) => {
  if (target.matches(".unirs .switch")) {
    target.closest(".unirs").querySelector(".map").hidden = !target.checked;
    return;
  }
  if (!target.matches(".unirs .slider")) return;
  const over = target.parentElement.querySelector(".over");
  // The page holds each image once.
  if (over.hidden) {
    over.src = target.parentElement.querySelector("img").src;
    over.hidden = false;
  }
  over.style.clipPath = `inset(0 ${100 - target.value}% 0 0)`;
});
