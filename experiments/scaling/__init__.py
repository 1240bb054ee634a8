"""How an epoch scales with data, batch, net and members."""
