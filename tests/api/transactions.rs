//! Steps 6 and 7: parameters, reports and test transactions, each under its own key.
