"""Keep releases fresh: drift, comparison, promotion, status, schedules."""
