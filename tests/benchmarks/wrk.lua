-- Callbacks of `devices` devices, each of which reports SENT, DELIVERED, SUCCESSFUL of one command
-- after the other. Arguments: devices, a number that no other run has, bytes of detail, a token.
-- Strings are put together in parts: the load must cost less than what it measures.

local parts, lengths = {}, {}
local codes = { "SENT", "DELIVERED", "SUCCESSFUL" }
local devices, run, n = 1000, 0, 0

function init(args)
    devices = tonumber(args[1])
    run = tonumber(args[2])
    local detail = string.rep("x", tonumber(args[3]))
    local token = args[4] and ("Authorization: Bearer " .. args[4] .. "\r\n") or ""
    for i, code in ipairs(codes) do
        local tail = '", "result": {"resultCode": "' .. code ..
            '", "resultDetail": {"light_state": 1, "more": "' .. detail .. '"}}}'
        local fixed = #'{"deviceId": "92d3f8da-200a-4143-8d0d-' + 12 +
            #'", "commandId": "108a9c71462a48e0' + 16 + #tail
        parts[i] = {
            "POST /v1.0.0/messageReceiver/cmd HTTP/1.1\r\nHost: 127.0.0.1\r\n" ..
                "Content-Type: application/json\r\n" .. token .. "Content-Length: " .. fixed ..
                '\r\n\r\n{"deviceId": "92d3f8da-200a-4143-8d0d-',
            '", "commandId": "108a9c71462a48e0',
            tail,
        }
    end
end

function request()
    local device, step = n % devices, math.floor(n / devices)
    n = n + 1
    local part = parts[step % 3 + 1]
    return part[1] .. string.format("%012d", device) .. part[2] ..
        string.format("%016d", run * 1000000 + math.floor(step / 3)) .. part[3]
end

function done(summary, latency)
    local errors = summary.errors
    io.write(string.format(
        'JSON {"requests": %d, "seconds": %.6f, "p50_ms": %.4f, "p99_ms": %.4f, ' ..
            '"not_200": %d, "broken": %d}\n',
        summary.requests, summary.duration / 1e6, latency:percentile(50) / 1000,
        latency:percentile(99) / 1000, errors.status,
        errors.connect + errors.read + errors.write + errors.timeout))
end
