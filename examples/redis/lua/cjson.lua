-- The library cjson of scripts: JSON as lua-cjson 2.1 reads and writes it.
-- Called with the value of null; returns the library, and a function that undoes its options.

local null = ...
local error, type, next, pcall, select, tonumber, tostring = error, type, next, pcall, select, tonumber, tostring
local rawget = rawget
local byte, char, find, format, gsub, match, sub = string.byte, string.char, string.find, string.format, string.gsub, string.match, string.sub
local concat, floor = table.concat, math.floor
local huge = math.huge

local DEFAULTS = {
    encode_sparse_array = {false, 2, 10},
    encode_max_depth = 1000,
    decode_max_depth = 1000,
    encode_number_precision = 14,
    encode_keep_buffer = true,
    encode_invalid_numbers = false,
    decode_invalid_numbers = true,
}
local options, is_changed = {}, true

local function reset()
    if is_changed then
        for name, value in next, DEFAULTS do
            options[name] = value
        end
        is_changed = false
    end
end
reset()

-- Call a function; an error has the place of the script.
local function checked(call, ...)
    local ok, result = pcall(call, ...)
    if not ok then
        error(result, type(result) == "string" and 3 or 0)
    end
    return result
end

-- Encoding

local escapes = {['"'] = '\\"', ["\\"] = "\\\\", ["/"] = "\\/", ["\127"] = "\\u007f"}
for code = 0, 31 do
    escapes[char(code)] = format("\\u%04x", code)
end
for code, letter in next, {[8] = "b", [9] = "t", [10] = "n", [12] = "f", [13] = "r"} do
    escapes[char(code)] = "\\" .. letter
end

local function quoted(text)
    return '"' .. gsub(text, '[%z\1-\31"\\/\127]', escapes) .. '"'
end

local function number_text(number)
    return format("%." .. options.encode_number_precision .. "g", number)
end

local function refuse(value, why)
    error("Cannot serialise " .. type(value) .. ": " .. why, 0)
end

-- The length of a table as an array; 0: it is an object.
local function array_length(of)
    local largest, count = 0, 0
    for key in next, of do
        if type(key) ~= "number" or key < 1 or floor(key) ~= key then
            return 0
        end
        largest = key > largest and key or largest
        count = count + 1
    end
    local converts, ratio, safe = options.encode_sparse_array[1], options.encode_sparse_array[2], options.encode_sparse_array[3]
    if ratio > 0 and largest > count * ratio and largest > safe then
        if not converts then
            refuse(of, "excessively sparse array")
        end
        return 0
    end
    return largest
end

local out, size -- the parts of what is encoded, and their number
local add

local function add_object(of, depth)
    local mark = "{"
    for key, value in next, of do
        size = size + 1
        out[size] = mark
        mark = ","
        if type(key) == "number" then
            size = size + 1
            out[size] = '"' .. number_text(key) .. '":'
        elseif type(key) == "string" then
            size = size + 1
            out[size] = quoted(key) .. ":"
        else
            refuse(key, "table key must be a number or string")
        end
        add(value, depth)
    end
    size = size + 1
    out[size] = mark == "{" and "{}" or "}"
end

function add(value, depth)
    local kind = type(value)
    if kind == "string" then
        size = size + 1
        out[size] = quoted(value)
    elseif kind == "number" then
        local invalid = options.encode_invalid_numbers
        if invalid ~= true and (value ~= value or value == huge or value == -huge) then
            if invalid == false then
                refuse(value, "must not be NaN or Inf")
            end
            size = size + 1
            out[size] = "null"
        else
            size = size + 1
            out[size] = number_text(value)
        end
    elseif kind == "boolean" then
        size = size + 1
        out[size] = value and "true" or "false"
    elseif kind == "nil" or value == null then
        size = size + 1
        out[size] = "null"
    elseif kind == "table" then
        depth = depth + 1
        if depth > options.encode_max_depth then
            error("Cannot serialise, excessive nesting (" .. depth .. ")", 0)
        end
        local length = array_length(value)
        if length == 0 then
            return add_object(value, depth)
        end
        for i = 1, length do
            size = size + 1
            out[size] = i == 1 and "[" or ","
            add(rawget(value, i), depth)
        end
        size = size + 1
        out[size] = "]"
    else
        refuse(value, "type not supported")
    end
end

local function encoded(value)
    out, size = {}, 0
    add(value, 0)
    local parts = out
    out = nil
    return concat(parts)
end

-- Decoding

local CONSTANTS = {["true"] = true, ["false"] = false, null = null}
local MARKS = {
    ["{"] = "T_OBJ_BEGIN", ["}"] = "T_OBJ_END", ["["] = "T_ARR_BEGIN", ["]"] = "T_ARR_END",
    [":"] = "T_COLON", [","] = "T_COMMA", ['"'] = "T_STRING", [""] = "T_END",
}
local LETTERS = {
    ['"'] = '"', ["\\"] = "\\", ["/"] = "/", b = "\b", f = "\f", n = "\n", r = "\r", t = "\t",
}

local function fail(expected, found, at)
    error(format("Expected %s but found %s at character %d", expected, found, at), 0)
end

-- The text of a number at a place, or nil.
local function number_at(text, at)
    if options.decode_invalid_numbers then
        local special = match(text, "^[+-]?[Ii][Nn][Ff][%a]*", at) or match(text, "^[+-]?[Nn][Aa][Nn]", at)
        if special then
            local lower = special:lower():gsub("^[+-]", "")
            if lower == "inf" or lower == "infinity" or lower == "nan" then
                return special
            end
        end
        local hex = match(text, "^[+-]?0[xX]%x+", at)
        if hex then
            return hex
        end
    end
    local digits = match(text, "^[+-]?%d+%.?%d*", at)
    return digits and digits .. (match(text, "^[eE][+-]?%d+", at + #digits) or "")
end

local function to_number(text)
    local number = tonumber(byte(text) == 43 and sub(text, 2) or text)
    if not number then
        local lower = text:lower()
        number = find(lower, "nan", 1, true) and 0 / 0 or huge
        number = byte(text) == 45 and -number or number
    end
    return number
end

local function is_valid(text)
    return options.decode_invalid_numbers or not (find(text, "^-?0%d") or byte(text) == 43 or find(text, "%.$") or find(text, "%.[eE]"))
end

-- The name of what is at a place, for an error that something else is expected.
local function token(text, at)
    local first = sub(text, at, at)
    local number = number_at(text, at)
    if number then
        return is_valid(number) and "T_NUMBER" or "invalid number"
    end
    for word in next, CONSTANTS do
        if sub(text, at, at + #word - 1) == word then
            return word == "null" and "T_NULL" or "T_BOOLEAN"
        end
    end
    return MARKS[first] or "invalid token"
end

local function utf8(code)
    if code < 0x80 then
        return char(code)
    elseif code < 0x800 then
        return char(0xC0 + floor(code / 64), 0x80 + code % 64)
    elseif code < 0x10000 then
        return char(0xE0 + floor(code / 4096), 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
    end
    return char(0xF0 + floor(code / 262144), 0x80 + floor(code / 4096) % 64, 0x80 + floor(code / 64) % 64, 0x80 + code % 64)
end

-- The character of an escape \uXXXX at a place, and the place behind it.
local function unicode(text, at)
    local code = tonumber(match(text, "^\\u(%x%x%x%x)", at) or "", 16)
    local low
    if code and code >= 0xD800 and code < 0xDC00 then
        low = tonumber(match(text, "^\\u(%x%x%x%x)", at + 6) or "", 16)
        if not low or low < 0xDC00 or low > 0xDFFF then
            code = nil
        end
    elseif code and code >= 0xDC00 and code < 0xE000 then
        code = nil
    end
    if not code then
        error("Expected value but found invalid unicode escape code at character " .. at, 0)
    elseif low then
        return utf8((code - 0xD800) * 0x400 + (low - 0xDC00) + 0x10000), at + 12
    end
    return utf8(code), at + 6
end

-- The string whose quote is at a place, and the place behind it.
local function string_at(text, at)
    local stop = find(text, '["\\%z]', at + 1)
    if stop and byte(text, stop) == 34 then
        return sub(text, at + 1, stop - 1), stop + 1
    end
    local parts, from = {}, at + 1
    while stop do
        parts[#parts + 1] = sub(text, from, stop - 1)
        local mark = byte(text, stop)
        if mark == 34 then
            return concat(parts), stop + 1
        elseif mark == 0 then
            break
        end
        local letter = sub(text, stop + 1, stop + 1)
        if letter == "u" then
            parts[#parts + 1], from = unicode(text, stop)
        elseif LETTERS[letter] then
            parts[#parts + 1], from = LETTERS[letter], stop + 2
        else
            error("Expected value but found invalid escape code at character " .. stop, 0)
        end
        stop = find(text, '["\\%z]', from)
    end
    error("Expected value but found unexpected end of string at character " .. #text + 1, 0)
end

local function skip(text, at)
    return find(text, "[^ \t\r\n]", at) or #text + 1
end

local value_at

local function deeper(depth, at)
    if depth >= options.decode_max_depth then
        error(format("Found too many nested data structures (%d) at character %d", depth + 1, at), 0)
    end
    return depth + 1
end

local function object_at(text, at, depth)
    local object = {}
    depth = deeper(depth, at)
    at = skip(text, at + 1)
    if byte(text, at) == 125 then
        return object, at + 1
    end
    while true do
        if byte(text, at) ~= 34 then
            fail("object key string", token(text, at), at)
        end
        local key
        key, at = string_at(text, at)
        at = skip(text, at)
        if byte(text, at) ~= 58 then
            fail("colon", token(text, at), at)
        end
        object[key], at = value_at(text, skip(text, at + 1), depth)
        at = skip(text, at)
        local mark = byte(text, at)
        if mark == 125 then
            return object, at + 1
        elseif mark ~= 44 then
            fail("comma or object end", token(text, at), at)
        end
        at = skip(text, at + 1)
    end
end

local function array_at(text, at, depth)
    local array, count = {}, 0
    depth = deeper(depth, at)
    at = skip(text, at + 1)
    if byte(text, at) == 93 then
        return array, at + 1
    end
    while true do
        count = count + 1
        array[count], at = value_at(text, at, depth)
        at = skip(text, at)
        local mark = byte(text, at)
        if mark == 93 then
            return array, at + 1
        elseif mark ~= 44 then
            fail("comma or array end", token(text, at), at)
        end
        at = skip(text, at + 1)
    end
end

function value_at(text, at, depth)
    local first = byte(text, at)
    if first == 34 then
        return string_at(text, at)
    elseif first == 123 then
        return object_at(text, at, depth)
    elseif first == 91 then
        return array_at(text, at, depth)
    end
    local number = number_at(text, at)
    if number and is_valid(number) then
        return to_number(number), at + #number
    end
    local word = match(text, "^%l+", at)
    if word and CONSTANTS[word] ~= nil then
        return CONSTANTS[word], at + #word
    end
    fail("value", token(text, at), at)
end

local function decoded(text)
    local value, at = value_at(text, skip(text, 1), 0)
    at = skip(text, at)
    if at <= #text then
        fail("the end", token(text, at), at)
    end
    return value
end

-- The library

local function only_one(name, ...)
    if select("#", ...) ~= 1 then
        error("bad argument #1 to '" .. name .. "' (expected 1 argument)", 3)
    end
end

local cjson = {null = null, _NAME = "cjson", _VERSION = "2.1.0"}

function cjson.encode(...)
    only_one("encode", ...)
    return checked(encoded, (...))
end

function cjson.decode(...)
    only_one("decode", ...)
    local text = ...
    if type(text) ~= "string" and type(text) ~= "number" then
        error("bad argument #1 to 'decode' (string expected, got " .. type(text) .. ")", 2)
    end
    return checked(decoded, tostring(text))
end

local function number_option(name, least, most)
    cjson[name] = function(value)
        if value ~= nil then
            value = tonumber(value)
            if not value or value < least or value > most then
                error(format("bad argument #1 to '%s' (expected integer between %d and %d)", name, least, most), 2)
            end
            options[name], is_changed = floor(value), true
        end
        return options[name]
    end
end

local function switch(name)
    cjson[name] = function(value)
        if value ~= nil then
            if value == "on" or value == "off" then
                value = value == "on"
            end
            if type(value) ~= "boolean" and not (value == "null" and name == "encode_invalid_numbers") then
                error(format("bad argument #1 to '%s' (invalid option '%s')", name, tostring(value)), 2)
            end
            options[name], is_changed = value, true
        end
        return options[name]
    end
end

number_option("encode_max_depth", 1, 2147483647)
number_option("decode_max_depth", 1, 2147483647)
number_option("encode_number_precision", 1, 14)
switch("encode_keep_buffer")
switch("encode_invalid_numbers")
switch("decode_invalid_numbers")

function cjson.encode_sparse_array(converts, ratio, safe)
    local old = options.encode_sparse_array
    if converts == nil then
        converts = old[1]
    end
    options.encode_sparse_array = {converts, tonumber(ratio) or old[2], tonumber(safe) or old[3]}
    is_changed = true
    return unpack(options.encode_sparse_array)
end

return cjson, reset
