# Mixed models and their tests in lme4, lmerTest and emmeans: run in this directory, writes mixed.json.
# The tests read the JSON alone.
suppressMessages({library(lmerTest); library(emmeans); library(jsonlite)})
options(contrasts = c("contr.sum", "contr.poly"), digits = 12)
# The default tolerances end at four digits of the variances; these end at more.
tight <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5),
                     check.conv.singular = "ignore", check.conv.grad = "ignore", check.conv.hess = "ignore")

read <- function(name, factors) {
  table <- read.csv(paste0("mixed_", name, ".csv"))
  table <- table[!is.na(table$value), ]
  for (column in factors) {
    levels <- unique(table[[column]])
    if (is.numeric(levels)) levels <- sort(levels)
    table[[column]] <- factor(table[[column]], levels = levels)
  }
  table$seed <- factor(table$seed)
  table
}
rows <- function(object) {
  frame <- as.data.frame(object)
  frame[] <- lapply(frame, function(x) if (is.factor(x)) as.character(x) else x)
  frame
}
described <- function(fit) {
  coefficients <- as.data.frame(coef(summary(fit)))
  tests <- as.data.frame(anova(fit, type = 3))
  variances <- as.data.frame(VarCorr(fit))
  # lmerTest's own combinations depend on which level it takes as the first; these are orthonormal in the rows.
  x <- getME(fit, "X")
  assigned <- attr(model.matrix(fit), "assign")
  joint <- do.call(rbind, lapply(setdiff(unique(assigned), 0), function(k) {
    l <- diag(ncol(x))[which(assigned == k), , drop = FALSE]
    l <- solve(t(chol(l %*% solve(crossprod(x)) %*% t(l)))) %*% l
    contest(fit, l, joint = TRUE)
  }))
  joint <- data.frame(term = attr(terms(fit), "term.labels"), joint, check.names = FALSE)
  list(joint = joint, coefficients = data.frame(name = rownames(coefficients), coefficients, check.names = FALSE),
       anova = data.frame(term = rownames(tests), tests, check.names = FALSE),
       variances = variances[c("grp", "vcov", "sdcor")], log_likelihood = as.numeric(logLik(fit)),
       names = names(fixef(fit)))
}
means <- function(fit, formula, method = NULL) {
  grid <- emmeans(fit, formula, lmer.df = "satterthwaite")
  if (!is.null(method)) grid <- contrast(grid, method)
  rows(summary(grid, infer = TRUE, adjust = "none"))
}
out <- list()

b <- read("balanced", c("width", "norm"))
fit <- lmer(value ~ width * norm + (1 | seed) + (1 | seed:width) + (1 | seed:norm), b, control = tight)
out$balanced <- described(fit)
out$balanced$means <- means(fit, ~ width)
out$balanced$pairwise <- means(fit, ~ width, "revpairwise")

u <- read("unbalanced", c("width", "norm", "origin"))
fit <- lmer(value ~ origin + width + norm + (1 | seed) + (1 | seed:width) + (1 | seed:norm), u, control = tight)
out$unbalanced <- described(fit)
out$unbalanced$means <- means(fit, ~ norm)
out$unbalanced$pairwise <- means(fit, ~ norm, "revpairwise")

l <- read("layers", c("norm", "activation", "layer", "run_id"))
fit <- lmer(value ~ norm * layer + activation + (1 | seed) + (1 | seed:norm) + (1 | seed:run_id), l, control = tight)
out$layers <- described(fit)
out$layers$means <- means(fit, ~ layer)
out$layers$pairwise <- means(fit, ~ norm, "revpairwise")

# A slope that varies over seeds, uncorrelated with their intercepts: both about the middle of the rows.
l$depth <- as.numeric(as.character(l$layer))
l$depth <- l$depth - mean(l$depth)
fit <- lmer(value ~ norm * depth + (1 | seed) + (0 + depth | seed) + (1 | seed:run_id), l, control = tight)
out$slopes <- described(fit)

z <- read("boundary", c("norm", "width"))
fit <- lmer(value ~ norm + width + (1 | seed) + (1 | seed:norm), z, control = tight)
out$boundary <- described(fit)

# Few rows in unbalanced tables: one with an optimum inside, one whose likelihood is largest without a residual.
for (name in c("few_rows", "saturated")) {
  f <- read(name, c("a", "b"))
  out[[name]] <- described(lmer(value ~ a * b + (1 | seed) + (1 | seed:a) + (1 | seed:b), f, control = tight))
}

write_json(out, "mixed.json", digits = 10, auto_unbox = TRUE, na = "null", rownames = FALSE)
