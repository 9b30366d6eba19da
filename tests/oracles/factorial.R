# The factorial model and its marginal means in R: run in this directory, writes factorial.json.
# Needs emmeans, car, sandwich and jsonlite. The tests read the JSON alone.
suppressMessages({library(emmeans); library(car); library(sandwich); library(jsonlite)})
emm_options(msg.interaction = FALSE)
options(contrasts = c("contr.sum", "contr.poly"), digits = 10)

read <- function(name, factors) {
  table <- read.csv(paste0("factorial_", name, ".csv"))
  for (column in factors) table[[column]] <- factor(table[[column]], levels = unique(table[[column]]))
  table$seed <- factor(table$seed)
  table
}
rows <- function(means, infer = TRUE) {
  frame <- as.data.frame(summary(means, infer = infer, adjust = "none"))
  names(frame)[names(frame) %in% c("emmean", "estimate")] <- "estimate"
  frame[] <- lapply(frame, function(x) if (is.factor(x)) as.character(x) else x)
  frame
}
terms_of <- function(fit, ...) {
  frame <- as.data.frame(Anova(fit, type = 3, ...))
  data.frame(term = rownames(frame), frame, check.names = FALSE)
}
coefficients_of <- function(fit) {
  frame <- as.data.frame(coef(summary(fit)))
  data.frame(name = rownames(frame), frame, check.names = FALSE)
}
out <- list()

# Balanced, 3 x 2 x 2 within six seeds.
b <- read("balanced", c("width", "norm", "activation"))
fit <- lm(value ~ width * norm * activation + seed, b)
out$balanced$pooled <- list(
  coefficients = coefficients_of(fit), anova = terms_of(fit),
  means = rows(emmeans(fit, ~ width)), means_by = rows(emmeans(fit, ~ width | norm)),
  pairwise = rows(contrast(emmeans(fit, ~ width), "revpairwise")),
  reference_by = rows(contrast(emmeans(fit, ~ width | norm), "trt.vs.ctrl1")),
  polynomial = rows(contrast(emmeans(fit, ~ width), "poly")),
  interaction = rows(contrast(emmeans(fit, ~ width * norm), interaction = c("trt.vs.ctrl1", "trt.vs.ctrl1")))
)
strata <- summary(aov(value ~ width * norm * activation + Error(seed / (width * norm * activation)), b))
out$balanced$strata <- do.call(rbind, lapply(strata[-1], function(s) {
  frame <- s[[1]]
  data.frame(term = trimws(rownames(frame)[1]), df = frame$Df[1], df_error = frame$Df[2], ss = frame[1, "Sum Sq"],
             ss_error = frame[2, "Sum Sq"], F = frame[1, "F value"], p = frame[1, "Pr(>F)"])
}))
split_norm <- aov(value ~ width * norm * activation + Error(seed / (width * norm * activation)), b)
out$balanced$stratum_contrast <- rows(contrast(emmeans(split_norm, ~ norm), "trt.vs.ctrl1"))
# One column a cell and no factor between seeds: contrasts with their own variance and n - 1 df.
b <- b[order(b$seed, b$width, b$norm, b$activation), ]
cells <- unique(b[c("width", "norm", "activation")])
y <- matrix(b$value, nrow = nlevels(b$seed), byrow = TRUE)
wide <- lm(y ~ 1)
levs <- list(activation = levels(b$activation), norm = levels(b$norm), width = levels(b$width))
out$balanced$within <- list(
  means = rows(emmeans(wide, ~ width, mult.levs = levs)),
  means_by = rows(emmeans(wide, ~ width | norm, mult.levs = levs)),
  pairwise = rows(contrast(emmeans(wide, ~ width, mult.levs = levs), "revpairwise")),
  polynomial = rows(contrast(emmeans(wide, ~ width, mult.levs = levs), "poly")),
  interaction = rows(contrast(emmeans(wide, ~ width * norm, mult.levs = levs),
                              interaction = c("trt.vs.ctrl1", "trt.vs.ctrl1")))
)
univariate <- summary(Anova(wide, idata = cells, idesign = ~ width * norm * activation, type = 3), multivariate = FALSE)
tests <- univariate$univariate.tests
gg <- univariate$pval.adjustments
out$balanced$sphericity <- data.frame(term = rownames(gg), epsilon = gg[, "GG eps"], p = gg[, "Pr(>F[GG])"],
                                      F = tests[rownames(gg), "F value"])
# The same by R's own anova.mlm.
spherical <- anova(wide, M = ~ width, X = ~ 1, idata = cells, test = "Spherical")
out$balanced$anova_mlm <- list(F = spherical[1, "F"], epsilon = as.numeric(attr(spherical, "heading") |>
  grep(pattern = "Greenhouse", value = TRUE) |> sub(pattern = ".*epsilon:\\s*([0-9.]+).*", replacement = "\\1")),
  p = spherical[1, "G-G Pr"])

# Unbalanced, 4 x 3 within seven seeds, 9 of 84 values missing, variance falling with the width.
u <- read("unbalanced", c("width", "norm"))
fit <- lm(value ~ width * norm + seed, u)
hc3 <- vcovHC(fit, type = "HC3")
out$unbalanced$pooled <- list(
  coefficients = coefficients_of(fit), anova = terms_of(fit),
  means = rows(emmeans(fit, ~ norm)), means_by = rows(emmeans(fit, ~ norm | width)),
  pairwise = rows(contrast(emmeans(fit, ~ norm), "revpairwise")),
  polynomial = rows(contrast(emmeans(fit, ~ width), "poly")),
  interaction = rows(contrast(emmeans(fit, ~ width * norm), interaction = c("trt.vs.ctrl1", "trt.vs.ctrl1")))
)
out$unbalanced$robust <- list(
  anova = terms_of(fit, vcov. = hc3),
  means = rows(emmeans(fit, ~ norm, vcov. = hc3)),
  pairwise = rows(contrast(emmeans(fit, ~ norm, vcov. = hc3), "revpairwise"))
)
# Within seeds by hand: additive least squares in every seed, then one-sample t tests of the combinations.
slopes <- sapply(split(u, u$seed), function(s) coef(lm(value ~ width + norm, s)))
out$unbalanced$within <- lapply(seq_len(nrow(slopes)), function(i) {
  test <- t.test(slopes[i, ])
  list(name = rownames(slopes)[i], estimate = unname(test$estimate), se = unname(test$stderr),
       df = unname(test$parameter), p = test$p.value)
})

# A half fraction in two replicates, seven rows missing, with a covariate that interacts.
v <- read("covariate", c("activation", "norm", "depth", "dropout"))
fit <- lm(value ~ activation * log10(lr) + norm + depth + dropout + seed, v)
out$covariate$pooled <- list(
  coefficients = coefficients_of(fit), anova = terms_of(fit),
  means = rows(emmeans(fit, ~ activation)), means_by = rows(emmeans(fit, ~ norm | depth)),
  pairwise = rows(contrast(emmeans(fit, ~ activation), "revpairwise")),
  at = rows(contrast(emmeans(fit, ~ activation, at = list(lr = 0.01)), "revpairwise"))
)

write_json(out, "factorial.json", digits = 10, auto_unbox = TRUE, pretty = FALSE, na = "null", rownames = FALSE)
