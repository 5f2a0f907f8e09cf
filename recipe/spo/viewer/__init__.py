"""Looking at what a run sampled: dumped trees and chains as one HTML page, or on the terminal.

`records` reads and checks a dump, `questions` makes one shape of trees and chains, `page` and
`terminal` show it, `command` is the command line. None of it imports verl, vLLM or Ray.
"""
