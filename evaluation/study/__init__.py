"""The user study of section 4.3: trials from results, a web app that asks people, and figure 8 of their answers."""
