--[[
Says what spend.lua would answer; changes nothing, so each set is looked at as if it were alone.

KEYS, ARGV as for spend.lua.

Reply: as of spend.lua, but nothing is charged in any bucket, and the numbers of its state are those it has.

The rest of this script is that of spend.lua, joined to it when it is loaded.
]]
local spending = false
