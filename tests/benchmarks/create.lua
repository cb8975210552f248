-- Items with names of their own, of which there can be several runs.
local run = os.time() .. tostring({}):match("0x%x+")
local number = 0

request = function()
  number = number + 1
  local body = string.format('{"name": "%s-%d"}', run, number)
  return wrk.format("POST", nil, {["Content-Type"] = "application/json"}, body)
end
