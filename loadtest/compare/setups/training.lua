-- For wrk: what clients of a gateway send, in turn: with a key, a token, a body, neither, to all routes.
--
-- arguments: the key's header, a key, a token
local requests, sent = {}, 0

function init(arguments)
  local key = { [arguments[1]] = arguments[2] }
  local token = { Authorization = "Bearer " .. arguments[3] }
  local body = string.rep("x", 1000)
  requests = {
    wrk.format("GET", "/items/1?page=2", key),
    wrk.format("GET", "/items/1?page=2", token),
    wrk.format("POST", "/items", key, body),
    wrk.format("GET", "/items", {}),
    wrk.format("GET", "/windows", key),
    wrk.format("GET", "/queues", token),
    wrk.format("GET", "/items", { [arguments[1]] = "nobody's" }),
  }
end

function request()
  sent = sent + 1
  return requests[sent % #requests + 1]
end
