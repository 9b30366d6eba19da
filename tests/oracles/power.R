# Writes power.json, the oracle of tests/test_stats_power.py and tests/test_stats_contrast_variance.py.
# Run in this folder: Rscript power.R

suppressMessages(library(lme4))

t_power <- function(n, effect, alpha) {
  power.t.test(n = n, delta = effect, sd = 1, sig.level = alpha, type = "one.sample")$power
}
t_seeds <- function(effect, alpha, power) {
  power.t.test(delta = effect, sd = 1, sig.level = alpha, power = power, type = "one.sample")$n
}

# Two one-sided tests: the chance that mean -+ t s / sqrt(n) lies within the margin, integrated over s.
tost_power <- function(n, margin, effect, alpha) {
  critical <- qt(1 - alpha, n - 1)
  given <- function(s) {
    inside <- pnorm(sqrt(n) * (margin - effect) - critical * s) - pnorm(sqrt(n) * (-margin - effect) + critical * s)
    inside * dchisq((n - 1) * s^2, n - 1) * 2 * (n - 1) * s
  }
  integrate(given, 0, sqrt(n) * margin / critical, rel.tol = 1e-10)$value
}

number <- function(x) trimws(formatC(x, digits = 12, format = "g"))
object <- function(...) {
  fields <- list(...)
  values <- vapply(fields, function(x) if (length(x) == 1) number(x) else
    paste0("[", paste(number(x), collapse = ", "), "]"), "")
  paste0("{", paste0('"', names(fields), '": ', values, collapse = ", "), "}")
}

difference <- mapply(function(n, effect, alpha) {
  object(n = n, effect = effect, alpha = alpha, power = t_power(n, effect, alpha))
}, c(17, 20, 40, 100), c(0.8, 0.7, 0.5, 0.3), c(0.05, 0.005, 0.05, 0.01))

seeds <- mapply(function(effect, alpha, power) {
  object(effect = effect, alpha = alpha, power = power, n = t_seeds(effect, alpha, power))
}, c(0.5, 0.4, 0.3), c(0.05, 0.01, 0.005), c(0.8, 0.9, 0.8))

equivalence <- mapply(function(n, margin, effect, alpha) {
  object(n = n, margin = margin, effect = effect, alpha = alpha, power = tost_power(n, margin, effect, alpha))
}, c(6, 10, 10, 25), c(1.5, 1, 1, 0.8), c(0, 0, 0.3, -0.2), c(0.05, 0.05, 0.01, 0.005))

pilot <- read.csv("power_pilot.csv")
pairs <- reshape(pilot, idvar = c("seed", "width", "dropout"), timevar = "norm", direction = "wide")
pairs$difference <- pairs$angle.batch - pairs$angle.none
pairs$cell <- factor(paste(pairs$width, pairs$dropout))
fit <- lmer(difference ~ cell + (1 | seed), data = pairs, REML = TRUE)
components <- as.data.frame(VarCorr(fit))$vcov
per_seed <- aggregate(difference ~ seed, data = pairs, FUN = mean)$difference

writeLines(paste0(
  "{\n\"difference\": [", paste(difference, collapse = ",\n  "), "],\n",
  "\"seeds\": [", paste(seeds, collapse = ",\n  "), "],\n",
  "\"equivalence\": [", paste(equivalence, collapse = ",\n  "), "],\n",
  "\"pilot\": ", object(seed_by_factor = components[1], difference_noise = components[2], sd = sd(per_seed)),
  "\n}"
), "power.json")
