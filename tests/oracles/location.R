# Writes location.json, the oracle of tests/test_stats_location.py. Run in this folder: Rscript location.R

samples <- list(
  six = c(1.2, 0.4, 2.9, -0.3, 1.8, 2.2),
  eight = c(-0.51, 1.32, 0.27, 2.05, 0.94, -0.18, 1.61, 0.73),
  twelve = c(3.1, -1.4, 0.2, 5.6, 2.7, -0.9, 1.1, 4.3, 0.6, -2.2, 1.9, 12.5)
)

# Tukey and McLaughlin (1963): the trimmed mean's t from the winsorised sd.
trimmed <- function(x, share = 0.2) {
  n <- length(x)
  g <- floor(share * n)
  s <- sort(x)
  winsorised <- pmin(pmax(x, s[g + 1]), s[n - g])
  error <- sd(winsorised) / ((1 - 2 * g / n) * sqrt(n))
  df <- n - 2 * g - 1
  centre <- mean(x, trim = g / n)
  c(centre, centre + c(-1, 1) * qt(0.975, df) * error, 2 * pt(-abs(centre) / error, df))
}

list_of <- function(x) paste0("[", paste(trimws(formatC(x, digits = 12, format = "g")), collapse = ", "), "]")
rows <- vapply(names(samples), function(name) {
  x <- samples[[name]]
  w <- wilcox.test(x, conf.int = TRUE, exact = TRUE)
  paste0("\"", name, "\": {\"values\": ", list_of(x), ", \"signed_rank\": ",
         list_of(c(w$estimate, w$conf.int, w$p.value)), ", \"trimmed\": ", list_of(trimmed(x)), "}")
}, "")
writeLines(paste0("{", paste(rows, collapse = ",\n "), "}"), "location.json")
