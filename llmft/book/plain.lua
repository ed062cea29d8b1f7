-- The pages of the book as HTML, from the cells that plain.py sends: `pandoc lua plain.lua`.
-- What is called here is described at https://pandoc.org/lua-filters.html.

local book = pandoc.json.decode(io.read("a"), false)
local names = {} -- label -> what a reference to it says, as "Figure 1.2"
local homes = {} -- label -> the page that it is on
local files = pandoc.List{} -- what pages show or link to: {the page, the path from it}

local WORDS = {fig = "Figure", tbl = "Table", eq = "Equation"}
local SCHEMES = {http = true, https = true, mailto = true}
local FORMAT = "markdown-auto_identifiers-implicit_header_references-latex_macros-raw_tex"
  .. "-markdown_in_html_blocks-native_divs-native_spans-pandoc_title_block-yaml_metadata_block"

local function html(text) return pandoc.RawBlock("html", text) end

-- Quarto's Markdown, read. Raw HTML becomes text, and only harmless attributes stay.
local function read(markdown, more)
  local page = pandoc.read(markdown, FORMAT .. (more or ""), {columns = 10000})
  if page.meta.title then page.blocks:insert(1, pandoc.Header(1, page.meta.title)) end
  local function text(el) return el.text:match("^<!%-%-") and {} or pandoc.Inlines{el.text} end
  local function attributes(el)
    local all = el.attributes
    if all then el.attributes = {alt = all["fig-alt"] or all.alt, title = all.title} end
    return el
  end
  return page.blocks:walk{
    RawInline = text, RawBlock = function(el) return pandoc.Plain(text(el)) end,
  }:walk{Inline = attributes, Block = attributes}
end

-- A cell: prose; or code, folded, above what it shows.
local function cell_blocks(cell)
  if cell.markdown then return read(cell.markdown, cell.more) end
  local blocks, outputs = pandoc.Blocks{}, pandoc.Blocks{}
  if cell.code ~= "" then
    blocks:insert(html("<details" .. (cell.open and " open" or "") .. "><summary>"))
    blocks:extend{pandoc.Plain(cell.summary), html "</summary>"}
    blocks:extend{pandoc.CodeBlock(cell.code, {class = "python"}), html "</details>"}
  end
  for _, output in ipairs(cell.outputs) do
    if output.markdown then outputs:extend(read(output.markdown))
    elseif output.text then outputs:insert(pandoc.CodeBlock(output.text))
    else outputs:insert(pandoc.Para(pandoc.Image({}, output.image, "", {alt = cell.alt}))) end
  end
  if cell.caption == "" then return blocks .. outputs end
  return blocks .. {pandoc.Figure(outputs, {long = read(cell.caption)}, {id = cell.label})}
end

-- Number the page's sections, figures, tables and equations, from the top of the page down.
local function number(page)
  local counts = {}

  local function name(label, word)
    counts[word] = (counts[word] or 0) + 1
    local at = (page.number == "" and "" or page.number .. ".") .. counts[word]
    names[label] = pandoc.Inlines{word .. " " .. at}
    return at
  end

  local function header(el)
    names[el.identifier] = pandoc.Inlines{"“"} .. el.content .. {"”"}
    if page.number ~= "" and el.level <= 2 and not el.classes:includes("unnumbered") then
      local word = page.number:match("%a") and "Appendix " or "Chapter "
      local at = el.level == 2 and name(el.identifier, "Section") or page.number
      if el.level == 1 then names[el.identifier] = pandoc.Inlines{word .. at} end
      el.content:insert(1, pandoc.Str(at .. " "))
    end
    page.title = page.title or el.content
    return el
  end

  local function captioned(el)
    local word = WORDS[el.identifier:match("^%a+")]
    if not word then return end
    local at = name(el.identifier, word)
    local first = el.caption.long[1] or {}
    if first.tag == "Plain" or first.tag == "Para" then
      first.content:insert(1, pandoc.Strong(word .. " " .. at .. ": "))
    end
    return el
  end

  local function equations(el) -- $$...$$ {#eq-x}
    for i = #el.content - 2, 1, -1 do
      local label = (el.content[i + 2].text or ""):match("^{#(eq%-[%w-]+)}$")
      if label and el.content[i].tag == "Math" then
        local right = pandoc.Span("(" .. name(label, WORDS.eq) .. ")")
        el.content[i] = pandoc.Span({el.content[i], right}, {id = label, class = "equation"})
        el.content:remove(i + 2)
        el.content:remove(i + 1)
      end
    end
    return el
  end

  local function callout(el)
    if not (el.classes[1] or ""):match("^callout") then return end
    local title = pandoc.Para(pandoc.Strong(el.attributes.title or ""))
    return pandoc.Div({title, table.unpack(el.content)}, {class = "note"})
  end

  page.blocks = page.blocks:walk{
    traverse = "topdown", Header = header, Figure = captioned, Table = captioned,
    Para = equations, Div = callout,
  }
end

-- A reference to labels becomes links; what else it cites is left to citeproc.
local function refer(cite)
  local links, others = pandoc.Inlines{}, pandoc.List{}
  for _, one in ipairs(cite.citations) do
    if names[one.id] then
      if #links > 0 then links:insert(pandoc.Str ", ") end
      if #one.prefix > 0 then links:extend(one.prefix .. {pandoc.Space()}) end
      links:insert(pandoc.Link(names[one.id], "#" .. one.id))
      if #one.suffix > 0 and one.mode == "AuthorInText" then links:insert(pandoc.Space()) end
      links:extend(one.suffix)
    else
      others:insert(one)
    end
  end
  if #links == 0 then return end
  if #others > 0 then links:extend{pandoc.Str " ", pandoc.Cite({}, others)} end
  return links
end

-- A link or an image leads to a page, a file of the book, or the web, or is only its text.
local function lead(page, el)
  local image = el.tag == "Image"
  local url = image and el.src or el.target
  local path, anchor = url:match("^([^#]*)#?(.*)$")
  local scheme = url:match("^([^/?#]*):") or url:match("^//")
  local safe = scheme == nil or SCHEMES[scheme:lower()]
  if image then safe = scheme == nil or url:match("^data:image/") end
  if not safe or (path == "" and not homes[anchor]) then
    return image and el.caption or el.content
  elseif path == "" then
    local home = homes[anchor]
    el.target = (home == page and "" or page.up .. home.href) .. "#" .. anchor
  elseif not scheme and (path:match("%.ipynb$") or path:match("%.qmd$")) then
    el.target = url:gsub("%.%a+", ".html", 1)
  elseif not scheme then
    files:insert{page.href, path}
  end
  return el
end

-- A page with its head and its links to the others.
local function whole(index, page)
  local nav = pandoc.List.map(book.pages, function(other)
    return {href = page.up .. other.href, name = other.title, current = other == page}
  end)
  local meta = {title = page.title, book = book.title, icon = book.icon}
  meta.nav, meta.next = nav, nav[index + 1]
  return pandoc.write(pandoc.Pandoc(page.blocks, meta), "html", {
    template = pandoc.template.compile(book.template), html_math_method = "mathml",
    wrap_text = "none", figure_caption_position = "above",
  })
end

for _, page in ipairs(book.pages) do
  page.blocks = pandoc.Blocks{}
  for _, cell in ipairs(page.cells) do page.blocks:extend(cell_blocks(cell)) end
  number(page)
end
local sources = pandoc.List.map(book.pages, function(page) return pandoc.Div(page.blocks) end)
local meta = {bibliography = book.bibliography, ["link-citations"] = true}
local cited = pandoc.Pandoc(pandoc.Blocks(sources):walk{Cite = refer}, meta)
local divs = pandoc.utils.citeproc(cited).blocks -- and the references, if no page has {#refs}
for i, page in ipairs(book.pages) do
  page.blocks = divs[i].content
  if i == #book.pages then page.blocks:extend{table.unpack(divs, i + 1)} end
  local function home(el) homes[el.identifier or ""] = page end
  page.blocks:walk{Block = home, Inline = home}
end
local texts = pandoc.List{}
for i, page in ipairs(book.pages) do
  local function lead_on(el) return lead(page, el) end
  page.blocks = page.blocks:walk{Link = lead_on, Image = lead_on}
  texts:insert(whole(i, page))
end
io.write(pandoc.json.encode{texts = texts, files = files})
