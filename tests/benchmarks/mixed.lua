-- A page, an item by key, a new item and a change, in turns, of items 1 to 1000.
local run = os.time() .. tostring({}):match("0x%x+")
local json = {["Content-Type"] = "application/json"}
local sent = 0

request = function()
  sent = sent + 1
  local item = "/items/" .. sent % 1000 + 1
  if sent % 4 == 0 then
    return wrk.format("GET", "/items")
  elseif sent % 4 == 1 then
    return wrk.format("GET", item)
  elseif sent % 4 == 2 then
    return wrk.format("POST", "/items", json, string.format('{"name": "%s-%d"}', run, sent))
  end
  return wrk.format("PATCH", item, json, string.format('{"description": "%d"}', sent))
end
