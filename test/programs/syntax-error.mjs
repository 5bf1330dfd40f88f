const = nothing that parses
