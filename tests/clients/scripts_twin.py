"""Scripts whose replies here and from Redis are compared: conversions, errors, the sandbox, the libraries.

Where an error is raised by a library that is written in Lua here, the script must not end with the call: Lua
then forgets the place (a tail call).
"""

from __future__ import annotations


def _each(text: str) -> list[str]:
    """Return the scripts of a text, one a line; a pilcrow is a line break in a script."""
    return [line.replace("¶", "\n") for line in text.strip("\n").split("\n")]


CONVERSIONS = _each(r"""
return 1
return -1.9
return 3.99
return 'a'
return ''
return nil
return
return true
return false
return 2^53
return 1e300
return -1e300
return 0/0
return {}
return {1,2,'a',true,false,4}
return {1,nil,3}
return {1,{2,{3.5}}}
return {a=1}
return {ok='fine'}
return {err='FINE text'}
return {err='word'}
return {ok='a\r\nb'}
return {err='A b\r\nc'}
return {{err='X y'},{ok='z'}}
return {double=1.5}
return {double=3}
return {double=1/0}
return {big_number='123456789012345678901234567890'}
return {verbatim_string={format='txt',string='hello'}}
return {map={a=1}}
return {set={a=true}}
return function() end
return redis.call
return cjson.null
return _G
return redis
return KEYS
return ARGV
return {#KEYS,#ARGV}
return {KEYS[1],ARGV[1],KEYS[3]}
redis.setresp(3); return true
redis.setresp(3); return {true,false,nil,1}
redis.setresp(3); return false
return redis.status_reply('FINE')
return redis.error_reply('A b')
return redis.error_reply('-A b')
return redis.error_reply('word')
return redis.error_reply(1)
return redis.error_reply()
return redis.status_reply(1)
return setmetatable({}, {__index=function() error('no') end})
local t = setmetatable({}, {__index={1,2,3}}); return t
return tostring(1e15) .. tostring(2^53) .. tostring(0.1) .. tostring(-0)
""")
CALLS = _each(r"""
return redis.call('set',KEYS[1],ARGV[1])
return redis.call('get',KEYS[1])
return type(redis.call('get','nosuch'))
return redis.call('incr','n')
return type(redis.call('incr','n'))
return redis.call('set','n',3.7)
return redis.call('get','n')
redis.call('set','n',2^60); return redis.call('get','n')
redis.call('set','n',1e100); return redis.call('get','n')
redis.call('set','n',-12345678901); return redis.call('get','n')
redis.call('set','n',0.1); return redis.call('get','n')
redis.call('del','l'); redis.call('rpush','l','a','b','c'); return redis.call('lrange','l',0,-1)
return #redis.call('lrange','l',0,-1)
return redis.call('mget',KEYS[1],'nosuch','l')
return redis.call('mget',KEYS[1],'nosuch')[2] == false
redis.call('hset','h','f','v'); return redis.call('hgetall','h')
redis.setresp(3); return redis.call('hgetall','h')
redis.setresp(3); return redis.call('hgetall','h').map.f
redis.setresp(3); return redis.call('get','nosuch')
redis.setresp(3); return redis.call('get','nosuch') == nil
redis.call('sadd','s','m'); return redis.call('smembers','s')
redis.setresp(3); return redis.call('smembers','s')
redis.setresp(3); return redis.call('smembers','s').set.m
redis.call('zadd','z',1.5,'m',2,'k'); return redis.call('zrange','z',0,-1,'withscores')
return redis.call('zscore','z','m')
redis.setresp(3); return redis.call('zscore','z','m')
redis.setresp(3); return redis.call('zscore','z','m').double * 2
redis.setresp(3); return redis.call('zrange','z',0,-1,'withscores')
return redis.call('ping')
return redis.call('ping').ok
return redis.call('ping','x')
return redis.call('type','l')
return redis.call('exists','l') == 1
return redis.call('ttl','l')
return redis.call('pttl','nosuch')
return redis.call('select',3)
redis.call('select',3); redis.call('set','in3','x'); return redis.call('get','in3')
return redis.call('get','in3')
redis.call('select',3); return {redis.call('get','in3'), redis.call('del','in3')}
redis.call('PExpire',KEYS[1],100000); return redis.call('persist',KEYS[1])
return redis.call('echo','a\0b')
redis.call('set','wrong','x'); redis.call('incr','n2'); redis.call('lpush','wrong','y')
return redis.call('get','n2')
return redis.call('del','n2')
""")
ERRORS = _each(r"""
redis.call('nosuch')
return redis.call('nosuch')
return redis.pcall('nosuch')
return redis.pcall('nosuch').err
return redis.call('get')
return redis.call('get','a','b')
return redis.call('set','a')
return redis.pcall('incr')
return redis.call()
return redis.pcall()
return redis.call({})
return redis.call('get', {})
return redis.call('get', true)
return redis.call('get', nil)
return redis.pcall('get', {}).err
redis.call('set','wrong','x'); return redis.call('lpush','wrong','y')
redis.call('set','wrong','x'); return redis.call('incr','wrong')
local e = redis.pcall('lpush','wrong','y'); return e
local e = redis.pcall('lpush','wrong','y'); return {type(e), e.err, e.ok}
return {pcall(redis.call, 'lpush','wrong','y')}
return {xpcall(function() return redis.call('lpush','wrong','y') end, function(e) return e.err end)}
return {pcall(redis.pcall, 'lpush','wrong','y')}
return {pcall(error, 'text')}
return {pcall(error, {err='A b'})}
return {pcall(error, {1,2})}
return {pcall(function() return nosuch end)}
return {pcall(function() error('x') end)}
error('text')
error('text', 0)
error('text', 2)
error({err='A b'})
error({err='A b', more=1})
error()
error(nil)
error(12)
¶¶error('third line')
local function f()¶ error('in f')¶end¶f()
local function f()¶ redis.call('nosuch')¶end¶f()
return nosuch
nosuch = 1
function nosuch() end
nosuch()
local t; t.x = 1
local t = 1 + {}
return #nil
x y
return '
return 1 2
return redis.call('multi')
return redis.call('exec')
return redis.call('discard')
return redis.call('watch')
return redis.call('unwatch')
return redis.call('quit')
return redis.call('reset')
return redis.call('watch','a')
return redis.call('subscribe','a')
return redis.call('client','id')
return redis.call('hello','3')
return redis.call('auth','x')
return redis.call('eval','return 1',0)
return redis.call('evalsha','abc',0)
return redis.call('script','flush')
return redis.call('config','get','save')
return redis.call('blpop','nosuch',1)
return redis.call('cluster','reset')
return redis.call('save')
return redis.call('xread','block',1,'streams','nosuch','$')
return redis.call('xread','streams','block','$')
return redis.sha1hex()
return redis.sha1hex('a','b')
return redis.log('x')
return redis.log('x','y')
return redis.log(7,'y')
return redis.log(redis.LOG_DEBUG,'y')
return redis.setresp()
return redis.setresp(4)
return redis.set_repl(redis.REPL_ALL)
return redis.set_repl(99)
return redis.set_repl()
return redis.replicate_commands()
return redis.acl_check_cmd('get','a')
#!lua¶return 1
#!lua flags=no-writes¶return redis.call('get','a')
#!lua flags=no-writes¶return redis.call('set','a','b')
#!lua flags=no-writes,allow-stale¶error('x')
#!lua flags=¶return 1
#!lua flags=x¶return 1
#!lua name=x¶return 1
#!python¶return 1
#!lua
#!¶return 1
#!lua flags=no-writes¶return redis.call('publish','a','b')
""")
SANDBOX = _each(r"""
redis.call = 1
redis = 1
_G = 1
_G.x = 1
string.x = 1
math.pi = 3
cjson.x = 1
table.insert = 1
cmsgpack.x = 1
bit.x = 1
struct.x = 1
KEYS = 1
rawset(_G, 'x', 1)
rawset(redis, 'call', 1)
setmetatable(_G, {})
setmetatable(redis, nil)
getmetatable(_G).__index = nil
return type(getmetatable(_G))
return getmetatable(redis)
return {rawget(_G,'nosuch'), type(rawget(_G,'redis'))}
KEYS[1] = 'changed'; return KEYS[1]
table.insert(KEYS, 'x'); return #KEYS
return os
return io
return debug
return package
return require
return dofile
return loadfile
return print
return module
return python
return arg
return loadstring(string.dump(function() return 1 end))()
return load(function() return nil end) ~= nil
return loadstring('return 1 + 1')()
return {loadstring('x y', 'name')}
return loadstring('return nosuch')()
return loadstring('a = 1')()
local n = 0; for k in pairs(redis) do n = n + 1 end; return n > 10
local n = 0; for k in pairs(_G) do n = n + 1 end; return n > 10
return next({})
return type(next(_G))
return {type(string), type(redis.call), type(cjson.null), type(math.huge)}
return ('x'):rep(3):upper()
return {_VERSION, type(_G), _G._G == _G, _G.redis == redis}
return {select('#', unpack({1,2,3}))}
return {tostring(nil), tonumber('0x10'), tonumber('z',36), tonumber('x')}
local co = coroutine.create(function(a) return 2 * coroutine.yield(a) end); return {coroutine.resume(co, 1)}
local f = coroutine.wrap(function() for i = 1, 3 do coroutine.yield(i) end end); return {f(), f(), f()}
return coroutine.wrap(function() return redis.call('ping') end)()
local t = {3,1,2}; table.sort(t); return t
local t = {3,1,2}; table.sort(t, function(a,b) return a > b end); return table.concat(t, ',')
return string.format('%d %s %5.2f %q', 3, 'x', 1.5, 'a"b')
return {string.find('hello', 'l+'), string.match('k=v', '(%w)=(%w)')}
return (pcall(string.rep))
return (pcall(setmetatable, 1, {}))
local function f() return 1 + f() end; return (pcall(f))
math.randomseed(7); local a = math.random(); math.randomseed(7); return a == math.random()
return {math.floor(1.5), math.max(1,5,2), math.random(1,1)}
""")
LIBRARIES = _each(r"""
local value = cjson.decode(nil); return value
return cjson.decode('[1e2,0.5,-3]')
return cjson.decode('null') == cjson.null
cjson.encode_max_depth(2); local r = {pcall(cjson.encode, {{{1}}})}; cjson.encode_max_depth(1000); return r
cjson.decode_max_depth(2); local r = {pcall(cjson.decode, '[[[1]]]')}; cjson.decode_max_depth(1000); return r
local r = {cjson.encode_number_precision(3), cjson.encode(1/3)}; cjson.encode_number_precision(14); return r
cjson.encode_sparse_array(true); local r = cjson.encode({[20]=1}); cjson.encode_sparse_array(false); return r
return {cmsgpack.unpack(cmsgpack.pack(1,nil,2))}
return {cmsgpack.unpack_one(cmsgpack.pack(1,2,3))}
return {cmsgpack.unpack_one(cmsgpack.pack(1,2,3), 2)}
return {cmsgpack.unpack_limit(cmsgpack.pack(1,2,3), 2)}
local value = cmsgpack.pack(); return value
local value = cmsgpack.unpack('\193'); return value
local value = cmsgpack.unpack('\218'); return value
return {cmsgpack.unpack('')}
return struct.size('>I4bh')
""")
_ENCODED = _each(r"""
1
1.5
1e20
0.1
-0
1/3
'a/b'
'\0\1\31\127\200'
'"\\\n\t'
true
false
nil
cjson.null
{}
{1,2,3}
{1,nil,3}
{a=1}
{[1]='x',[3]='y'}
{[2]=1}
{[20]=1}
{[1.5]=1}
{[true]=1}
{{},{{}}}
function() end
0/0
1/0

""")
_DECODED = _each(r"""
''
'[1'
'[1,'
'[1 2]'
'{'
'{"a"'
'{"a":'
'{"a":1'
'{"a":1,}'
'{a:1}'
'[1]]'
'nul'
'"a'
'"\\x"'
'"\\ud800"'
'[,]'
'tru'
'+1'
'[1,]'
'1'
'-1.5e3'
'"a"'
'"\\u00e9\\u20ac"'
'"\\ud83d\\ude00"'
'true'
'null'
'[]'
'{}'
'[1,[2,{}]]'
'{"a":{"b":[null]}}'
' [ 1 , 2 ] '
'{"a":1,"a":2}'
'0x10'
'[01]'
""")
_PACKED = _each(r"""
0
127
128
255
256
65535
65536
2^32
2^53
-1
-32
-33
-128
-129
-32768
-32769
-2^31
-2^31-1
-2^53
0.5
0.1
1e300
-1.5
''
'a'
('x'):rep(31)
('x'):rep(32)
('x'):rep(256)
true
false
{}
{1,2}
{a=1}
{1,{2,{a={}}}}
{[1]=1,[3]=3}
1,2,'x'
""")
_BITS = _each(r"""
tobit(2^32)
tobit(0xffffffff)
tobit(-1.5)
band(255,15,6)
bor(1,2,4)
bxor(5,3)
bnot(0)
lshift(1,31)
lshift(1,32)
rshift(-1,28)
arshift(-256,4)
rol(0x12345678,8)
ror(0x12345678,8)
bswap(0x12345678)
tohex(255)
tohex(-1,4)
tohex(255,-4)
""")
_STRUCTS = _each(r"""
'>I2',258
'<I4',1
'bBhH',-1,255,-2,65535
'l',-5
'>d',1.5
'f',0.5
's','abc'
'c3','abcdef'
'>I2c0',3,'abc'
'xb',1
'!4bi',1,2
'i3',-7
""")
LIBRARIES += [f"local text = cjson.encode({value}); return text" for value in _ENCODED]
LIBRARIES += [
    f"local value = cjson.decode({text}); return {{type(value), cjson.encode(value)}}"
    for text in _DECODED
]
LIBRARIES += [
    f"local p = cmsgpack.pack({value}); local h = p:gsub('.', function(c)"
    " return string.format('%02x', c:byte()) end); return {h, cjson.encode({cmsgpack.unpack(p)})}"
    for value in _PACKED
]
LIBRARIES += [f"return bit.{call}" for call in _BITS]
LIBRARIES += [
    f"local p = struct.pack({values}); return {{#p, p, struct.unpack({values.split(',')[0]}, p)}}"
    for values in _STRUCTS
]
READ_ONLY = _each(r"""
return redis.call('get','a')
return redis.call('set','a','b')
return redis.pcall('set','a','b')
return redis.pcall('set','a','b').err
return redis.call('publish','a','b')
#!lua¶return 1
#!lua flags=no-writes¶return 1
""")
ALL = [*CONVERSIONS, *CALLS, *ERRORS, *SANDBOX, *LIBRARIES]
