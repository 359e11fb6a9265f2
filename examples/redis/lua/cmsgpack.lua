-- The library cmsgpack of scripts: MessagePack as lua-cmsgpack 0.4 reads and writes it.
-- Called with two functions of Python for floats; returns the library.

local pack_double, unpack_double = ...
local error, type, next, pcall, select, tostring, unpack = error, type, next, pcall, select, tostring, unpack
local byte, char, sub, concat, floor = string.byte, string.char, string.sub, table.concat, math.floor
local MAX_NESTING = 16
local TWO_32, TWO_63 = 2 ^ 32, 2 ^ 63

-- A number as big-endian bytes; a negative one as its two's complement.
local function bytes_of(number, size)
    if size == 8 then
        local high = floor(number / TWO_32)
        return bytes_of(high % TWO_32, 4) .. bytes_of(number - high * TWO_32, 4)
    end
    number = number % 256 ^ size
    if size == 1 then
        return char(number)
    elseif size == 2 then
        return char(floor(number / 256), number % 256)
    end
    return char(floor(number / 16777216), floor(number / 65536) % 256, floor(number / 256) % 256, number % 256)
end

local function packed_number(number)
    if floor(number) ~= number or number >= TWO_63 or number < -TWO_63 then
        return pack_double(number)
    elseif number >= 0 then
        if number < 128 then
            return char(number)
        elseif number < 256 then
            return "\204" .. char(number)
        elseif number < 65536 then
            return char(205, floor(number / 256), number % 256)
        elseif number < TWO_32 then
            return char(206, floor(number / 16777216), floor(number / 65536) % 256, floor(number / 256) % 256, number % 256)
        end
        return "\207" .. bytes_of(number, 8)
    elseif number >= -32 then
        return char(256 + number)
    elseif number >= -128 then
        return "\208" .. bytes_of(number, 1)
    elseif number >= -32768 then
        return "\209" .. bytes_of(number, 2)
    elseif number >= -2147483648 then
        return "\210" .. bytes_of(number, 4)
    end
    return "\211" .. bytes_of(number, 8)
end

-- The head of a value with a length; `short` is the first byte of short ones, with `most` at most.
local function head(length, short, most, one, two, four)
    if length <= most then
        return char(short + length)
    elseif one and length < 256 then
        return char(one, length)
    elseif length < 65536 then
        return char(two) .. bytes_of(length, 2)
    end
    return char(four) .. bytes_of(length, 4)
end

-- How many elements a table has, and whether it is an array.
local function measured(of)
    local count, largest, is_array = 0, 0, true
    for key in next, of do
        count = count + 1
        if type(key) ~= "number" or key < 1 or floor(key) ~= key then
            is_array = false
        elseif key > largest then
            largest = key
        end
    end
    return count, is_array and largest == count
end

local out, size -- the parts of what is packed, and their number

local function add(value, level)
    local kind = type(value)
    if kind == "string" then
        size = size + 1
        out[size] = head(#value, 0xA0, 31, 0xD9, 0xDA, 0xDB)
        size = size + 1
        out[size] = value
    elseif kind == "number" then
        size = size + 1
        out[size] = packed_number(value)
    elseif kind == "boolean" then
        size = size + 1
        out[size] = value and "\195" or "\194"
    elseif kind == "table" and level < MAX_NESTING then
        local count, is_array = measured(value)
        if is_array then
            size = size + 1
            out[size] = head(count, 0x90, 15, nil, 0xDC, 0xDD)
            for i = 1, count do
                add(value[i], level + 1)
            end
        else
            size = size + 1
            out[size] = head(count, 0x80, 15, nil, 0xDE, 0xDF)
            for key, element in next, value do
                add(key, level + 1)
                add(element, level + 1)
            end
        end
    else
        size = size + 1
        out[size] = "\192"
    end
end

-- Unpacking

local MISSING, BAD = "Missing bytes in input.", "Bad data format in input."

local function uint_at(text, at, size)
    if at + size - 1 > #text then
        error(MISSING, 0)
    end
    local number = 0
    for i = at, at + size - 1 do
        number = number * 256 + byte(text, i)
    end
    return number, at + size
end

local function int_at(text, at, size)
    local is_negative = (byte(text, at) or 0) >= 128
    if is_negative and size == 8 and at + 7 <= #text then -- a float does not hold 64 bits
        return (uint_at(text, at, 4) - TWO_32) * TWO_32 + uint_at(text, at + 4, 4), at + 8
    end
    local number
    number, at = uint_at(text, at, size)
    return is_negative and number - 256 ^ size or number, at
end

local function text_at(text, at, size)
    if at + size - 1 > #text then
        error(MISSING, 0)
    end
    return sub(text, at, at + size - 1), at + size
end

local value_at

local function array_at(text, at, count)
    local array = {}
    for i = 1, count do
        array[i], at = value_at(text, at)
    end
    return array, at
end

local function map_at(text, at, count)
    local map = {}
    for _ = 1, count do
        local key, value
        key, at = value_at(text, at)
        value, at = value_at(text, at)
        if key == nil or key ~= key then
            error(BAD, 0)
        end
        map[key] = value
    end
    return map, at
end

local function float_at(text, at, size)
    local bytes
    bytes, at = text_at(text, at, size)
    return unpack_double(bytes), at
end

-- By the first byte: what reads the rest, and the size that it is given; `of`: what reads an element.
local READERS = {
    [0xCA] = {float_at, 4}, [0xCB] = {float_at, 8},
    [0xCC] = {uint_at, 1}, [0xCD] = {uint_at, 2}, [0xCE] = {uint_at, 4}, [0xCF] = {uint_at, 8},
    [0xD0] = {int_at, 1}, [0xD1] = {int_at, 2}, [0xD2] = {int_at, 4}, [0xD3] = {int_at, 8},
}
local SIZED = {
    [0xC4] = {text_at, 1}, [0xC5] = {text_at, 2}, [0xC6] = {text_at, 4},
    [0xD9] = {text_at, 1}, [0xDA] = {text_at, 2}, [0xDB] = {text_at, 4},
    [0xDC] = {array_at, 2}, [0xDD] = {array_at, 4}, [0xDE] = {map_at, 2}, [0xDF] = {map_at, 4},
}

function value_at(text, at)
    local first = byte(text, at)
    if not first then
        error(MISSING, 0)
    end
    at = at + 1
    if first < 0x80 then
        return first, at
    elseif first < 0x90 then
        return map_at(text, at, first - 0x80)
    elseif first < 0xA0 then
        return array_at(text, at, first - 0x90)
    elseif first < 0xC0 then
        return text_at(text, at, first - 0xA0)
    elseif first >= 0xE0 then
        return first - 256, at
    elseif first == 0xC0 then
        return nil, at
    elseif first == 0xC2 or first == 0xC3 then
        return first == 0xC3, at
    end
    local reader, sized = READERS[first], SIZED[first]
    if reader then
        return reader[1](text, at, reader[2])
    elseif sized then
        local size
        size, at = uint_at(text, at, sized[2])
        return sized[1](text, at, size)
    end
    error(BAD, 0)
end

local function values_at(text, at, limit)
    local values, count = {}, 0
    while at <= #text and (limit == 0 or count < limit) do
        count = count + 1
        values[count], at = value_at(text, at)
    end
    return values, count, at
end

-- Read values from an offset; an error has the place of the script.
local function read(text, limit, offset)
    if type(text) ~= "string" and type(text) ~= "number" then
        error("bad argument #1 to 'unpack' (string expected, got " .. type(text) .. ")", 3)
    end
    text = tostring(text)
    if limit < 0 or offset < 0 then
        error("Invalid request to unpack with offset of " .. offset .. " and limit of " .. #text .. ".", 3)
    elseif offset > #text then
        error("Start offset " .. offset .. " greater than input length " .. #text .. ".", 3)
    end
    local ok, values, count, at = pcall(values_at, text, offset + 1, limit)
    if not ok then
        error(values, type(values) == "string" and 3 or 0)
    end
    return values, count, at > #text and -1 or at - 1
end

local function checked_pack(...)
    out, size = {}, 0
    for i = 1, select("#", ...) do
        add((select(i, ...)), 0)
    end
    local parts = out
    out = nil
    return concat(parts)
end

local cmsgpack = {
    _NAME = "cmsgpack",
    _VERSION = "lua-cmsgpack 0.4.0",
    _COPYRIGHT = "",
    _DESCRIPTION = "MessagePack C implementation for Lua",
}

function cmsgpack.pack(...)
    if select("#", ...) == 0 then
        error("bad argument #0 to 'pack' (MessagePack pack needs input.)", 2)
    end
    return checked_pack(...)
end

function cmsgpack.unpack(text)
    local values, count = read(text, 0, 0)
    return unpack(values, 1, count)
end

function cmsgpack.unpack_one(text, offset)
    local values, count, at = read(text, 1, offset or 0)
    return at, unpack(values, 1, count)
end

function cmsgpack.unpack_limit(text, limit, offset)
    local values, count, at = read(text, limit, offset or 0)
    return at, unpack(values, 1, count)
end

return cmsgpack
