"""Who may see and change what: grants, the policy, and the one scoped queryset."""
