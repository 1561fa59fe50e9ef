-- For wrk: every request comes from one of many clients, chosen at random.
--
-- arguments: the key's header or "none", what all keys start with, the number of clients
local requests = {}

function init(arguments)
  local header, prefix, clients = arguments[1], arguments[2], tonumber(arguments[3])
  math.randomseed(os.time())
  for client = 0, clients - 1 do
    local headers = {}
    if header ~= "none" then headers[header] = string.format("%s%05d", prefix, client) end
    requests[client + 1] = wrk.format("GET", "/", headers)
  end
end

function request()
  return requests[math.random(#requests)]
end
