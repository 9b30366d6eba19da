# Polynomial contrasts over unequally spaced doses in R: run in this directory, writes dose.json.
# Needs jsonlite. The tests read the JSON alone.
library(jsonlite)

table <- read.csv("dose.csv")
doses <- sort(unique(table$dose))
curves <- t(sapply(split(table, table$seed), function(rows) rows$value[order(rows$dose)]))
contrasts_on <- function(scores) {
  polynomials <- contr.poly(length(scores), scores = scores)
  lapply(1:3, function(degree) {
    # contr.poly has unit length; the polynomial with a leading coefficient of 1 is what a coefficient per unit needs
    unit <- polynomials[, degree]
    others <- if (degree == 1) rep(1, length(scores)) else outer(scores, 0:(degree - 1), "^")
    monic <- residuals(lm(scores^degree ~ others - 1))
    test <- t.test(curves %*% unit / sqrt(sum(monic^2)))
    list(estimate = unname(test$estimate), low = test$conf.int[1], high = test$conf.int[2], df = unname(test$parameter))
  })
}
writeLines(
  toJSON(list(linear = contrasts_on(doses), log2 = contrasts_on(log2(doses))), auto_unbox = TRUE, digits = 12, pretty = TRUE),
  "dose.json"
)
