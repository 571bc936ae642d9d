"""Methods of control: policies for processes that are acted in through observations."""
