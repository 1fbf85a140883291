(function () {
  "use strict";
  var root = document.documentElement;
  root.classList.add("js");

  // Contents of folded parts belong on paper.
  var folded = [];
  window.addEventListener("beforeprint", function () {
    folded = Array.prototype.slice.call(document.querySelectorAll("details:not([open])"));
    folded.forEach(function (d) { d.open = true; });
  });
  window.addEventListener("afterprint", function () {
    folded.forEach(function (d) { d.open = false; });
  });

  var theme = document.getElementById("theme");
  if (theme) {
    theme.addEventListener("click", function () {
      var dark = root.getAttribute("data-theme") === "dark" ||
        (!root.hasAttribute("data-theme") &&
          window.matchMedia("(prefers-color-scheme: dark)").matches);
      root.setAttribute("data-theme", dark ? "light" : "dark");
    });
  }
  var fold = document.getElementById("fold");
  if (fold) {
    fold.addEventListener("click", function () {
      var all = document.querySelectorAll("main details");
      var open = fold.getAttribute("aria-pressed") !== "true";
      Array.prototype.forEach.call(all, function (d) { d.open = open; });
      fold.setAttribute("aria-pressed", String(open));
    });
  }

  // Sorting keeps the rows; the keys are plain numbers or text.
  function sort(table, column, button) {
    var head = button.parentNode;
    var down = head.getAttribute("aria-sort") !== "descending";
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (c) {
      c.removeAttribute("aria-sort");
    });
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    var body = table.tBodies[0];
    var rows = Array.prototype.slice.call(body.rows);
    rows.sort(function (a, b) {
      var x = a.cells[column].getAttribute("data-key");
      var y = b.cells[column].getAttribute("data-key");
      if (x === null || y === null) { return (x === null) - (y === null); }
      var p = Number(x), q = Number(y);
      var order = isNaN(p) || isNaN(q) ? x.localeCompare(y) : p - q;
      return down ? -order : order;
    });
    rows.forEach(function (r) { body.appendChild(r); });
  }
  Array.prototype.forEach.call(document.querySelectorAll("table.sortable"), function (table) {
    Array.prototype.forEach.call(table.tHead.rows[0].cells, function (cell, k) {
      var button = document.createElement("button");
      button.type = "button";
      while (cell.firstChild) { button.appendChild(cell.firstChild); }
      cell.appendChild(button);
      button.addEventListener("click", function () { sort(table, k, button); });
    });
  });

  // The contents show where the reader is.
  var links = {};
  Array.prototype.forEach.call(document.querySelectorAll(".toc a"), function (a) {
    links[a.getAttribute("href").slice(1)] = a;
  });
  if ("IntersectionObserver" in window) {
    var seen = new IntersectionObserver(function (entries) {
      entries.forEach(function (e) {
        if (!e.isIntersecting) { return; }
        Object.keys(links).forEach(function (k) { links[k].removeAttribute("aria-current"); });
        if (links[e.target.id]) { links[e.target.id].setAttribute("aria-current", "true"); }
      });
    }, { rootMargin: "-10% 0px -75% 0px" });
    Array.prototype.forEach.call(document.querySelectorAll("main > section"), function (s) {
      seen.observe(s);
    });
  }
}());
