-- The condition Ready says whether this version of the monitor is valid and all its objects are in place; pods never gate it. Stalled
-- says that only its author can mend it. A status of an older version says nothing of this one.
local hs = {}
hs.status = "Progressing"
hs.message = "Waiting for the operator to look at this version"

if obj.status == nil or obj.status.conditions == nil or obj.status.observedGeneration ~= obj.metadata.generation then
  return hs
end

local ready = nil
for _, condition in ipairs(obj.status.conditions) do
  if condition.type == "Stalled" and condition.status == "True" then
    hs.status = "Degraded"
    hs.message = condition.message
    return hs
  end
  if condition.type == "Ready" then
    ready = condition
  end
end

if ready == nil then
  return hs
end

if ready.reason == "Paused" then
  hs.status = "Suspended"
  hs.message = ready.message
  return hs
end

if ready.status == "True" then
  hs.status = "Healthy"
  -- What is not good although the monitor is ready, such as pods that have to be restarted.
  hs.message = obj.status.message or ready.message
  return hs
end

-- The monitor goes on by itself as soon as prometheus-operator's definitions are there, so nothing that waits for it has to give up.
if ready.status == "False" and ready.reason ~= "PrometheusOperatorMissing" then
  hs.status = "Degraded"
end
hs.message = ready.message
return hs
