# Effects that differ between cells, in R: run in this directory, writes cells.json.
# Needs lme4 and jsonlite. The tests read the JSON alone.
suppressMessages({library(lme4); library(jsonlite)})

table <- read.csv("cells.csv")
for (column in c("seed", "cell")) table[[column]] <- factor(table[[column]])
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
fit <- lmer(value ~ 1 + (1 | cell) + (1 | seed), table, REML = TRUE, control = control)
variances <- as.data.frame(VarCorr(fit))
out <- list(
  mean = unname(fixef(fit)), sd = setNames(as.list(variances$sdcor), variances$grp),
  pooled = unname(fixef(fit)) + ranef(fit)$cell[["(Intercept)"]]
)
writeLines(toJSON(out, auto_unbox = TRUE, digits = 10, pretty = TRUE), "cells.json")
