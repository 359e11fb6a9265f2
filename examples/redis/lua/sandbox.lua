-- The environment of scripts: what is safe of Lua, the table redis, the libraries; all of it read-only.
-- Called once for a runtime, with a table of Python functions; returns a table of functions for Python.
--
-- A script must not get at Python objects: they reach Lua only as errors, which pcall and the like convert.
-- Errors that Python raised for the server, such as a deadline, pass through everything that catches.

local host, new_cjson, new_cmsgpack = ...
local HOOK_EVERY = 100000 -- instructions
local MAX_DEPTH = 128 -- of tables in a reply
local OWN = {["=sandbox"] = true, ["=cjson"] = true, ["=cmsgpack"] = true} -- sources
local READONLY = "Attempt to modify a readonly table"

local type, next, error, select, tostring, unpack = type, next, error, select, tostring, unpack
local rawget, rawset, setmetatable, setfenv = rawget, rawset, setmetatable, setfenv
local getmetatable, loadstring, pcall, xpcall, pairs = getmetatable, loadstring, pcall, xpcall, pairs
local byte, concat, collectgarbage = string.byte, table.concat, collectgarbage
local getinfo, sethook = debug.getinfo, debug.sethook
local create, resume = coroutine.create, coroutine.resume
local null = newproxy()

for name, call in pairs(host) do
    host[name] = python.as_function(call)
end
local reraised, text_of = host.reraised, host.text_of
sethook(host.tick, "", HOOK_EVERY)
math.randomseed(host.seed())
collectgarbage("setpause", 150)

-- Tables that scripts cannot change: empty ones that show another table.

local shown = setmetatable({}, {__mode = "k"})
local proxies = {}

local function refuse_change()
    error(READONLY, 2)
end

local function protected(of)
    local proxy = setmetatable({}, {__index = of, __newindex = refuse_change})
    shown[proxy] = of
    proxies[#proxies + 1] = proxy
    return proxy
end

local globals = {}
local environment = protected(globals)
setmetatable(globals, {
    __index = function(_, name)
        local shown_name = type(name) == "number" and tostring(name) or name
        if type(shown_name) ~= "string" then
            error("Second argument to luaProtectedTableError must be a string or number", 2)
        end
        error("Script attempted to access nonexistent global variable '" .. shown_name .. "'", 2)
    end,
})
local strings = protected(string)
getmetatable("").__index = strings
local of_globals = protected({__index = protected({})})
local of_strings = protected({__index = strings})

function globals.getmetatable(of)
    if type(of) == "string" then
        return of_strings
    elseif of == environment then
        return of_globals
    elseif type(of) == "table" and not shown[of] then
        return getmetatable(of)
    end
end

function globals.setmetatable(of, meta)
    if shown[of] then
        error(READONLY, 0)
    end
    return setmetatable(of, meta)
end

function globals.rawset(of, key, value)
    if shown[of] then
        error(READONLY, 0)
    end
    return rawset(of, key, value)
end

function globals.rawget(of, key)
    return rawget(shown[of] or of, key)
end

function globals.next(of, key)
    return next(shown[of] or of, key)
end

function globals.pairs(of)
    if type(of) ~= "table" then
        error("bad argument #1 to 'pairs' (table expected, got " .. type(of) .. ")", 2)
    end
    if not shown[of] then
        return next, of, nil
    end
    local copy = {}
    for key, value in next, shown[of] do
        copy[key] = value
    end
    return next, copy, nil
end

-- Errors. Those that redis.call raises come from Python, as objects.

local function settled(ok, ...)
    if ok then
        return true, ...
    end
    local problem = ...
    if type(problem) == "userdata" and problem ~= null then
        return false, {err = reraised(problem)}
    end
    return false, ...
end

local function as_text(ok, ...)
    local problem = ...
    if not ok and type(problem) == "table" and type(rawget(problem, "err")) == "string" then
        return false, rawget(problem, "err")
    end
    return ok, ...
end

function globals.pcall(...)
    return as_text(settled(pcall(...)))
end

function globals.xpcall(call, handle)
    return settled(xpcall(call, function(problem)
        if type(problem) == "userdata" and problem ~= null then
            local text = text_of(problem)
            if not text then
                return problem
            end
            problem = {err = text}
        end
        return handle(problem)
    end))
end

-- What a script has raised, with the place where it did.
local function described(problem)
    if type(problem) == "userdata" and problem ~= null then
        local text = text_of(problem)
        if not text then
            return problem
        end
        problem = {err = text}
    elseif type(problem) ~= "table" then
        problem = {err = "ERR " .. tostring(problem)}
    end
    local level, at = 2, getinfo(2, "Sl")
    while at and (at.what ~= "main" and at.what ~= "Lua" or OWN[at.source]) do
        level = level + 1
        at = getinfo(level, "Sl")
    end
    if at then
        rawset(problem, "source", at.source)
        rawset(problem, "line", at.currentline)
    end
    return problem
end

-- Coroutines have the hook of the runtime.

local function created(call)
    local made = create(call)
    sethook(made, host.tick, "", HOOK_EVERY)
    return made
end

local function unwrapped(ok, ...)
    if not ok then
        error((...), type((...)) == "string" and 3 or 0)
    end
    return ...
end

local coroutines = {
    create = created,
    resume = function(...)
        return settled(resume(...))
    end,
    wrap = function(call)
        local made = created(call)
        return function(...)
            return unwrapped(settled(resume(made, ...)))
        end
    end,
    running = coroutine.running,
    status = coroutine.status,
    yield = coroutine.yield,
}

-- Code is text, never what string.dump has made.

local function loaded(code, name)
    code = type(code) == "number" and tostring(code) or code
    if type(code) ~= "string" then
        error("bad argument #1 to 'loadstring' (string expected, got " .. type(code) .. ")", 3)
    elseif byte(code) == 27 then
        return nil, "attempt to load chunk with wrong mode"
    end
    local made, problem = loadstring(code, name or code)
    return made and setfenv(made, environment), problem
end

function globals.loadstring(code, name)
    return loaded(code, name)
end

function globals.load(read, name)
    if type(read) ~= "function" then
        error("bad argument #1 to 'load' (function expected, got " .. type(read) .. ")", 2)
    end
    local parts = {}
    repeat
        local part = read()
        parts[#parts + 1] = part
    until part == nil or part == ""
    return loaded(concat(parts), name or "=(load)")
end

function globals.collectgarbage(what)
    return what == "count" and collectgarbage("count") or 0
end

for _, name in next, {"assert", "error", "gcinfo", "ipairs", "rawequal", "select", "tonumber",
                      "tostring", "type", "unpack", "_VERSION"} do
    globals[name] = _G[name]
end

-- The table redis.

local redis = {
    call = host.call,
    pcall = host.pcall,
    log = host.log,
    sha1hex = host.sha1hex,
    acl_check_cmd = host.acl_check_cmd,
    setresp = host.setresp,
    set_repl = host.set_repl,
    LOG_DEBUG = 0,
    LOG_VERBOSE = 1,
    LOG_NOTICE = 2,
    LOG_WARNING = 3,
    REPL_NONE = 0,
    REPL_AOF = 1,
    REPL_SLAVE = 2,
    REPL_REPLICA = 2,
    REPL_ALL = 3,
    REDIS_VERSION = host.version(),
    REDIS_VERSION_NUM = host.version_number(),
}

local function is_text(...)
    return select("#", ...) == 1 and type((...)) == "string"
end

function redis.error_reply(...)
    if not is_text(...) then
        return {err = "ERR wrong number or type of arguments"}
    end
    local text = string.gsub(..., "^%-", "")
    local code, rest = string.match(text, "^([^ ]*) (.*)$")
    rest = string.gsub(string.gsub(rest or text, "^[\r\n]+", ""), "[\r\n]+$", "")
    return {err = (code or "ERR") .. " " .. rest}
end

function redis.status_reply(...)
    if not is_text(...) then
        return {err = "ERR wrong number or type of arguments"}
    end
    return {ok = (...)}
end

function redis.replicate_commands()
    return true
end

-- The libraries.

local function of_host(prefix)
    local library = {}
    for name, call in next, host do
        if name:sub(1, #prefix) == prefix then
            library[name:sub(#prefix + 1)] = call
        end
    end
    return library
end

local cjson, reset_cjson = new_cjson(null)
local cmsgpack = new_cmsgpack(host.pack_double, host.unpack_double)
globals._G = environment
for name, library in next, {
    redis = redis,
    coroutine = coroutines,
    math = math,
    table = table,
    cjson = cjson,
    cmsgpack = cmsgpack,
    bit = of_host("bit_"),
    struct = of_host("struct_"),
} do
    globals[name] = protected(library)
end
globals.string = strings

-- What a script returns, as one list for Python: pairs of a tag and a value.

local STRING, NUMBER, BOOL, NIL, ERR, OK, DOUBLE, BIG, VERBATIM, MAP, SET, ARRAY = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12
local SCALARS = {string = STRING, number = NUMBER, boolean = BOOL}

-- The value of a field of a table that stands for a value of RESP.
local FIELDS = {
    {"err", "string", ERR}, {"ok", "string", OK}, {"double", "number", DOUBLE}, {"big_number", "string", BIG},
}

local add

local function add_all(out, n, of, depth, tag, with_values)
    local at, count = n + 2, 0
    out[n + 1], out[at] = tag, 0
    n = at
    for key, value in next, of do
        n = add(out, n, key, depth + 1)
        if with_values then
            n = add(out, n, value, depth + 1)
        end
        count = count + 1
    end
    out[at] = count
    return n
end

local function add_table(out, n, of, depth)
    for _, field in next, FIELDS do
        local value = rawget(of, field[1])
        if type(value) == field[2] then
            out[n + 1], out[n + 2] = field[3], value
            return n + 2
        end
    end
    local verbatim = rawget(of, "verbatim_string")
    if type(verbatim) == "table" then
        local format, text = rawget(verbatim, "format"), rawget(verbatim, "string")
        if type(format) == "string" and type(text) == "string" then
            out[n + 1], out[n + 2] = VERBATIM, (format .. "   "):sub(1, 3) .. text
            return n + 2
        end
    end
    local map, set = rawget(of, "map"), rawget(of, "set")
    if type(map) == "table" then
        return add_all(out, n, map, depth, MAP, true)
    elseif type(set) == "table" then
        return add_all(out, n, set, depth, SET, false)
    end
    local at, count = n + 2, 0
    out[n + 1], out[at] = ARRAY, 0
    n = at
    local value = rawget(of, 1)
    while value ~= nil do
        n = add(out, n, value, depth + 1)
        count = count + 1
        value = rawget(of, count + 1)
    end
    out[at] = count
    return n
end

function add(out, n, value, depth)
    local kind = type(value)
    local tag = SCALARS[kind]
    if tag then
        out[n + 1], out[n + 2] = tag, value
    elseif kind ~= "table" then
        out[n + 1], out[n + 2] = NIL, false
    elseif depth > MAX_DEPTH then
        out[n + 1], out[n + 2] = ERR, "ERR reached lua stack limit"
    else
        return add_table(out, n, shown[value] or value, depth)
    end
    return n + 2
end

local function flattened(value)
    local out = {}
    add(out, 0, value, 0)
    return out
end

local function clean()
    globals.KEYS, globals.ARGV = nil, nil
    for i = 1, #proxies do
        local proxy = proxies[i]
        while next(proxy) ~= nil do -- table.insert does not ask a metatable
            rawset(proxy, next(proxy), nil)
        end
    end
    reset_cjson()
end

-- Run a compiled script. Returns true and its value, a table flattened; or false, the error and its place,
-- which is "" if the script has left it by a tail call; or false and what is not an error of the script's.
local function run(script, keys, arguments)
    globals.KEYS, globals.ARGV = keys, arguments
    local ok, value = xpcall(script, described)
    if ok and type(value) == "table" then
        ok, value = pcall(flattened, value)
    end
    clean()
    local kind = type(value)
    if ok then
        if kind == "function" or kind == "thread" or value == null then
            value = nil
        end
        return true, value
    elseif kind == "table" then
        return false, tostring(rawget(value, "err")), rawget(value, "source") or "", rawget(value, "line")
    end
    return false, value
end

-- Return a script as a function, or the text of what is wrong.
local function compile(code)
    local made, problem = loadstring(code, "@user_script")
    if made then
        return setfenv(made, environment)
    end
    return problem
end

for _, name in next, {"debug", "dofile", "getfenv", "io", "loadfile", "module", "newproxy", "os",
                      "package", "print", "python", "require", "setfenv"} do
    _G[name] = nil
end

return run, compile
