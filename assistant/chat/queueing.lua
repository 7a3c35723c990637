-- The line of queueing.py. Every script runs as one step; times are Redis's own, in milliseconds.
--
-- running   sorted set: ticket -> end of its lease
-- waiting   sorted set: ticket -> its turn; the lowest is next
-- leases    sorted set: waiting ticket -> end of its lease
-- tickets   hash: ticket -> JSON {person, turn, subjects: [[key, concurrent, requests, tokens]]}
-- open      hash: subject or person -> tickets that are running or waiting
-- queued    hash: person -> tickets that wait
-- turns     hash: person -> the last turn given; "now" -> the turn that was admitted last
-- used:KEY:KIND:WINDOW   what a subject has used in a minute or an hour
local P = KEYS[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function add(hash, field, by)
  if redis.call('HINCRBY', P .. hash, field, by) <= 0 then
    redis.call('HDEL', P .. hash, field)
  end
end

local function ticket_of(id)
  local raw = redis.call('HGET', P .. 'tickets', id)
  return raw and cjson.decode(raw)
end

local function drop(id)
  local ticket = ticket_of(id)
  redis.call('ZREM', P .. 'running', id)
  if redis.call('ZREM', P .. 'waiting', id) == 1 and ticket then
    add('queued', ticket.person, -1)
  end
  redis.call('ZREM', P .. 'leases', id)
  redis.call('HDEL', P .. 'tickets', id)
  if ticket then
    for _, subject in ipairs(ticket.subjects) do
      add('open', subject[1], -1)
    end
  end
end

local function drop_expired()
  for _, set in ipairs({'running', 'leases'}) do
    for _, id in ipairs(redis.call('ZRANGEBYSCORE', P .. set, '-inf', now)) do
      drop(id)
    end
  end
end

local function used(key, kind, seconds)
  return P .. 'used:' .. key .. ':' .. kind .. ':' .. math.floor(now / 1000 / seconds)
end

local function left_of(seconds)
  return seconds - math.floor(now / 1000) % seconds
end

local function use(key, kind, seconds, amount)
  local name = used(key, kind, seconds)
  redis.call('INCRBY', name, amount)
  redis.call('EXPIRE', name, seconds + 60)
end

local function verdict(word, number, subject)
  return {word, number, redis.call('ZCARD', P .. 'running'), redis.call('ZCARD', P .. 'waiting'), subject or ''}
end

-- script: enter
-- ticket, person, turns behind, most running, most waiting, most waiting of one person, lease,
-- limits as JSON, seconds of the window of requests, of tokens
local id, person, behind = ARGV[1], ARGV[2], tonumber(ARGV[3])
local most_running, most_waiting, share = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local lease, minute, hour = now + ARGV[7], tonumber(ARGV[9]), tonumber(ARGV[10])
drop_expired()

local function admit()
  while redis.call('ZCARD', P .. 'running') < most_running do
    local first = redis.call('ZPOPMIN', P .. 'waiting')[1]
    if not first then
      -- Nobody waits: whoever comes next starts a new count.
      redis.call('DEL', P .. 'turns')
      return
    end
    local ticket = ticket_of(first)
    redis.call('ZREM', P .. 'leases', first)
    redis.call('ZADD', P .. 'running', lease, first)
    if ticket then
      add('queued', ticket.person, -1)
      local last = tonumber(redis.call('HGET', P .. 'turns', 'now') or 0)
      redis.call('HSET', P .. 'turns', 'now', math.max(last, ticket.turn))
    end
  end
end

if redis.call('HEXISTS', P .. 'tickets', id) == 0 then
  local limits = cjson.decode(ARGV[8])
  for _, limit in ipairs(limits) do
    local key, concurrent, requests, tokens = limit[1], limit[2], limit[3], limit[4]
    if concurrent > 0 and tonumber(redis.call('HGET', P .. 'open', key) or 0) >= concurrent then
      return verdict('concurrent', 5, key)
    end
    if requests > 0 and tonumber(redis.call('GET', used(key, 'requests', minute)) or 0) >= requests then
      return verdict('requests', left_of(minute), key)
    end
    if tokens > 0 and tonumber(redis.call('GET', used(key, 'tokens', hour)) or 0) >= tokens then
      return verdict('tokens', left_of(hour), key)
    end
  end
  admit()
  local waiting = redis.call('ZCARD', P .. 'waiting')
  if redis.call('ZCARD', P .. 'running') >= most_running then
    if waiting >= most_waiting then
      return verdict('full', 10)
    end
    if tonumber(redis.call('HGET', P .. 'queued', person) or 0) >= share then
      return verdict('share', 10)
    end
  end
  for _, limit in ipairs(limits) do
    add('open', limit[1], 1)
    if limit[3] > 0 then
      use(limit[1], 'requests', minute, 1)
    end
  end
  -- A person's next question is a turn later than the one before: one each, round and round.
  local who = person .. ':' .. behind
  local turn = math.max(
    tonumber(redis.call('HGET', P .. 'turns', 'now') or 0),
    tonumber(redis.call('HGET', P .. 'turns', who) or 0) + 1
  )
  redis.call('HSET', P .. 'turns', who, turn)
  redis.call('HSET', P .. 'tickets', id, cjson.encode({person = person, turn = turn, subjects = limits}))
  -- Within a turn, who came first.
  local came = redis.call('INCR', P .. 'came') % 1000000
  redis.call('ZADD', P .. 'waiting', (turn + behind) * 1000000 + came, id)
  add('queued', person, 1)
end

admit()
local rank = redis.call('ZRANK', P .. 'waiting', id)
if rank then
  redis.call('ZADD', P .. 'leases', lease, id)
  return verdict('waiting', rank + 1)
end
redis.call('ZADD', P .. 'running', 'XX', lease, id)
return verdict('running', 0)

-- script: look
drop_expired()
return verdict('look', 0)

-- script: renew
-- lease, then tickets
for at = 2, #ARGV do
  redis.call('ZADD', P .. 'running', 'XX', now + ARGV[1], ARGV[at])
end
return 1

-- script: leave
-- ticket, tokens spent, seconds of the window of requests, of tokens
local ticket = ticket_of(ARGV[1])
if ticket then
  for _, subject in ipairs(ticket.subjects) do
    if subject[4] > 0 and tonumber(ARGV[2]) > 0 then
      use(subject[1], 'tokens', tonumber(ARGV[4]), tonumber(ARGV[2]))
    end
  end
  drop(ARGV[1])
end
return 1
