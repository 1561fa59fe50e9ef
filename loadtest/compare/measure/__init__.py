"""What loadtest/compare/compare is made of."""
