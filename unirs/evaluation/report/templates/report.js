const form = document.querySelector(".filters");
const cards = [...document.querySelectorAll(".card")];
const texts = cards.map((card) => card.textContent.toLowerCase());

function filter() {
  const chosen = new FormData(form);
  const words = (chosen.get("text") || "").toLowerCase();
  let count = 0;
  cards.forEach((card, index) => {
    const fits = ["task", "category", "answer", "choice"].every((name) => {
      const value = chosen.get(name);
      return !value || (name === "choice" ? card.dataset.choice.split(" ").includes(value) : card.dataset[name] === value);
    });
    card.hidden = !(fits && texts[index].includes(words));
    count += !card.hidden;
  });
  document.getElementById("count").textContent = `${count} sample${count === 1 ? "" : "s"}`;
  document.getElementById("none").hidden = count > 0;
  document.querySelectorAll(".map").forEach((map) => { map.hidden = !chosen.has("maps"); });
}

form.addEventListener("input", filter);
form.addEventListener("submit", (event) => event.preventDefault());
// A browser may restore the values of the form.
filter();
