"""Methods for finite processes whose costs are bounded."""
