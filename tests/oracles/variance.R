# Variance components in R, by REML and by mean squares: run in this directory, writes variance.json.
# Needs lme4 and jsonlite. The tests read the JSON alone.
suppressMessages({library(lme4); library(jsonlite)})

components <- function(name, random, sources) {
  table <- read.csv(paste0(name, ".csv"))
  for (column in setdiff(names(table), "value")) table[[column]] <- factor(table[[column]])
  control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-10, maxfun = 1e5))
  fit <- lmer(as.formula(paste("value ~", random)), table, REML = TRUE, control = control)
  reml <- as.data.frame(VarCorr(fit))
  anova <- summary(aov(as.formula(paste("value ~", sources)), table))[[1]]
  list(
    reml = setNames(as.list(reml$vcov), reml$grp),
    mean_squares = setNames(as.list(anova[["Mean Sq"]]), trimws(rownames(anova))),
    df = setNames(as.list(anova[["Df"]]), trimws(rownames(anova))),
    f_highest = anova[["F value"]][nrow(anova) - 1], p_highest = anova[["Pr(>F)"]][nrow(anova) - 1],
    mean = unname(fixef(fit)), standard_error = sqrt(vcov(fit)[1, 1])
  )
}

out <- list(
  variance_two_way = components("variance_two_way", "(1|weights) + (1|order)", "weights + order"),
  variance_three_way = components(
    "variance_three_way",
    "(1|weights) + (1|feedback) + (1|order) + (1|weights:feedback) + (1|weights:order) + (1|feedback:order)",
    "(weights + feedback + order)^2"
  ),
  variance_replicated = components(
    "variance_replicated", "(1|weights) + (1|feedback) + (1|weights:feedback)", "weights * feedback"
  )
)
writeLines(toJSON(out, auto_unbox = TRUE, digits = 10, pretty = TRUE), "variance.json")
